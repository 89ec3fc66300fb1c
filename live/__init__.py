"""The real world: backends, load generator, router service, emulator."""
