"""The nightly pass: duties, check in, train, contribute, adopt."""
