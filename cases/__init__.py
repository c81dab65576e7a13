"""The cases: pytest modules, a folder for each family of ops. In a wheel they are suite.cases."""
