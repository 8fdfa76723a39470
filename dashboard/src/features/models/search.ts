import { text } from '../../lib/search';

export interface ModelsSearch {
  /** The AiModel whose dialog is open. */
  edit?: string;
  /** The dialog of a new model is open: `/`, or the provider and model of an implicit one. */
  create?: string;
}

export function validateModelsSearch(search: Record<string, unknown>): ModelsSearch {
  const [edit, create] = [text(search['edit']), text(search['create'])];
  return { ...(edit && { edit }), ...(create && { create }) };
}
