"""Files with caller-supplied names: attachments, uploads, model files, attempt output and safe paths."""
