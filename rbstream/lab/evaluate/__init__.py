"""How good a network is: scores, numbers with intervals, figures and a page.

One way: a data set's part and a bundle's scores (`scores`) become numbers (`evaluation`, from `threshold`, `metrics`,
`calibration`, `compare`, with intervals by `resample`), the numbers become figures (`figures`), and all of it a page
(`page`). Everything before the figures is arrays in, numbers out.
"""
