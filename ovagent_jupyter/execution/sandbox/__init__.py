"""Confinement of a child by the system: what is granted, how it is put on, who watches."""
