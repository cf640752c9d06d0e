"""Claims of the collection's papers, reproduced at tiny size."""
