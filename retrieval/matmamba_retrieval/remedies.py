"""What helps, as messages name it: the call, and the command that makes it."""

REPAIR = "`repair` (`matmamba gallery repair`)"
RELOCATE = "`relocate` (`matmamba gallery relocate`)"
DELETE = "`delete` (`matmamba gallery delete`)"
IMPORT = "`import_gallery` (`matmamba gallery import`)"
ENCODER = "`set_encoder` (`matmamba gallery encoder`)"
PLAN = "`plan` (`matmamba plan`)"
