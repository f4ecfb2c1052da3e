"""Plain functions differ too much in shape for properties of their own; the common ones hold."""

CHECKS = ()
