"""The program `pedboneseg`: the command line, the worker that 3D Slicer talks to, batches, the demo, the doctor."""
