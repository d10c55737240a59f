"""The MSACL loss, equations (1) to (9)."""
