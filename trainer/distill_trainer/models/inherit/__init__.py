"""The student's first weights as a slice of the teacher's, for `student.init: inherit`."""
