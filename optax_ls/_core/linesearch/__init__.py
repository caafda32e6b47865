"""Line searches of scalars by reverse communication, their driver, and the transformations."""
