"""Everything between us and a model service: layers around a call, each usable by itself."""
