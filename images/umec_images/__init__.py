"""Application images: signing, verification, registry gateway, promotion, admission facts."""
