"""Measurements, one command each.

``paper`` has what the method learns, ``speed`` what a step costs, ``faults`` what is left after kills and stops;
``pocket`` builds the embedded model.
"""
