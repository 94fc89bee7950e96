"""Operations with a plain definition and fast implementations of it."""
