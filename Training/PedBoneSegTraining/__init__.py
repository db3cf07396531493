"""The training library: from folders of images to a model that the runtime opens."""
