"""From a corpus of columns to packed batches of ranked lists."""
