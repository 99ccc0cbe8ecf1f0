"""Measurements of this package, a command each: training results, speed, faults; and the build of the pocket model.

``paper`` has what the method learns, ``speed`` what a step costs, ``faults`` what is left after kills and stops;
``pocket`` builds the embedded model.
"""
