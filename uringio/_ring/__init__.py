"""The ring layer: synchronous, without trio. What a ring is, and the rings there are."""
