"""What a model is retrained with: feedback that can be trusted, beside the data it came from.

candidates   what an export says, one value per labelled image
sources      whose statements count: trusted ones, and others once they were found to agree
labels       what is true of an image, and where those who count disagree
overlap      images that are known already, or that a figure rests on
shares       how much of a class one source may give
assigning    which of the new images serve which purpose
bias         how the labelled images were selected
composition  the steps above in their order, each counted
composed     old and new images as one data set, with their roles, that can be opened again
growing      a network and mixture with components for classes that it did not know
record       all of it as JSON and as a page
"""
