"""The user's own data: folders, tables, tars, hub repositories and torchvision classes."""
