"""The student's first weights as a small copy of the teacher, for `student.init: inherit`."""
