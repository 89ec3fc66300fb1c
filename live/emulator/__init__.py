"""The emulator: an HTTP server that speaks SGLang's protocol and answers at a profile's pace."""
