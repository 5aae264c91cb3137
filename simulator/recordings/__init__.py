"""Recordings: HDF5 files that are whole at every moment, say what made them, and can be resumed and run again."""
