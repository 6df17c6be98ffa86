"""init: a look at a user's data and at this machine, and the first recipe that fits both."""
