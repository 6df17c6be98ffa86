"""The page of a workspace: results in words, tables and pictures."""
