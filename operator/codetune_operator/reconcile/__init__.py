"""What should be, as pure functions of what was asked for and what is: no client, clock, environment or logger."""
