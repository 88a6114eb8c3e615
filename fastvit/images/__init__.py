"""One image: from a file to a tensor, and from predictions to a drawing."""
