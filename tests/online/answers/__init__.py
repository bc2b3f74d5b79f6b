"""What each algorithm answers, worked out without Earth Engine: by Python, NumPy, SciPy, shapely and pyproj.

Every case asks one algorithm through the client; the tests of the emulator and those of the real service share them.
"""
