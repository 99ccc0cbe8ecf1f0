"""The commands of the console script: ``mgrpo fit``, ``validate``, ``replay``, ``launch``, ``view`` and the others."""
