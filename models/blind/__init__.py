"""An independent generator of artificial ZTF alerts: real events and artefacts in real scenes.

`inject(stamps, positive, n, seed)` takes real triplets (science, template, difference), makes each a
quiet scene (emptied, re-centred, or wearing another stamp's mask), adds light of one kind of event to
science and reference, subtracts, and keeps what a 5-sigma detector would have found at the middle.

Light is in DN. The maps are 63x63 and the coordinates X, Y are zero at the middle pixel.
"""
