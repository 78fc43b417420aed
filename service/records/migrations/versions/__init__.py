"""One module for each revision; what is here was run somewhere, so it is never changed."""
