"""Tools that train several times: the learning-rate search and sweeps."""
