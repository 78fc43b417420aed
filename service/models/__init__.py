"""The models of a server: which there are, which answers, and how one takes another's place.

`served` and `registry` hold models, `mode` the stop button; `manager` does what operators ask,
after `checking` and `acceptance`; `state` and `store` keep what they told for all workers,
`arrangement` follows it; `shadow` compares, `watch` and `folder` look for new bundles, `loading`
and `starting` say from which one a process begins.
"""
