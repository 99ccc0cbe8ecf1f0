"""What holds for a whole process: how it is stopped, that it has one run, and how its memory is given back."""
