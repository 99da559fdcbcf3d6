"""Public fakes and conformance checks, for our tests and for those of plugins."""
