"""Small programs to begin with: an own tool, an own task, an own reward, and questions to a journal."""
