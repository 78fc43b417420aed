"""Studies: the same images, many models, several seeds; tables beside the published ones.

`plan` says what a study is, `recipes` names those that there are, `conduct` runs them, `measure`
takes the figures of one run, `summary` averages over seeds, `findings` says what they show, and
`page` writes it all down.
"""
