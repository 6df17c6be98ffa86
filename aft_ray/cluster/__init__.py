"""Ray: gangs, pipelines, jobs and leases, and what a long command tells its user."""
