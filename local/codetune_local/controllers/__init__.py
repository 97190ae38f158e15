"""The controllers of the local cluster. Each is a pure function from what is to what to do, in a thin loop."""
