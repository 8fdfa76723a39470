"""Files with names that others choose: attachments, uploads, model files, attempt output, and safe paths."""
