"""From a lab's folders to batches: dataset → bank → augmentation → source."""
