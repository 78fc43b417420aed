"""Jobs that turn a folder of images into a bundle: doctor, fit, evaluate, report."""
