"""Who does the work: the same rooms, one machine or many."""
