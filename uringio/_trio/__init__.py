"""The trio layer: tasks that await what a ring does. The only part of uringio that knows trio."""
