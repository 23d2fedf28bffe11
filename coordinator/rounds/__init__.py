"""Rounds and cohorts: the state machine, committees, deadlines."""
