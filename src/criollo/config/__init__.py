"""Settings: the typed tree, where its values come from, and how it is written out again."""
