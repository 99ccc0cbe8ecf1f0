"""What a person types: ``mgrpo fit``, ``validate``, ``replay``, ``launch``, ``view`` and the others."""
