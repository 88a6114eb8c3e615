"""Models in the form that others take them in: folders, repositories of the Hugging Face Hub, and their cards."""
