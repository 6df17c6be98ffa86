"""Ray: gangs, pipelines, jobs, leases, and the progress of long commands."""
