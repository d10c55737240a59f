"""GPU-batched synthetic-lesion augmentation (MSACL, section 3.2)."""
